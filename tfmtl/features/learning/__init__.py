"""What is learned of a column that is read batch by batch, in bounded memory."""
