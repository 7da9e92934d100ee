//! The bounded stages between a server and a store.

pub mod pace;
pub mod read;
pub mod steer;
pub mod write;
