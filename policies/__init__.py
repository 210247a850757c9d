"""What should the split become? Pure: sums and times come in, verdicts and transitions go out."""
