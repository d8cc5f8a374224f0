"""The words after `bigtrain shards`: one file for words that belong together, each with arguments and what it does."""
