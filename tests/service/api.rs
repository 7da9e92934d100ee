//! The REST interface: who may call what, what is answered, word for word, and that its description is true. Every answer that any test gets is compared with that description.

mod access;
mod bodies;
mod contract;
mod events;
mod headers;
mod jobs;
mod log;
mod place;
mod sockets;
mod strict;
mod values;
