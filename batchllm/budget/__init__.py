"""Everything about money: prices, estimate, budget, costs, and the early stop."""
