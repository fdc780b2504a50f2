"""Commands that are run again and again, the book of their runs, and who is told when one fails."""
