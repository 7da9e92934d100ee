//! What goes on while the service runs.

pub mod webhook;
