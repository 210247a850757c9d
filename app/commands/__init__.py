"""The commands, one file per noun; `app.cli` names them. They load what is heavy only when they run."""
