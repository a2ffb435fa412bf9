"""The figures of docs/introduction.md, one file per story: `experiment=intro/dots`, `intro/supervised` and so on."""
