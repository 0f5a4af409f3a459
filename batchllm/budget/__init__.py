"""Everything about money: estimate, upper bounds, budget, costs, and the early stop."""
