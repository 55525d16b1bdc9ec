"""Where people write workflows: a web page and a language server for editors. Both complete text with a model."""
