"""Building blocks of methods: heads, prototypes, queues and masks."""
