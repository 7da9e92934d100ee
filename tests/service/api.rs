//! The REST interface: access, exact answers, and its description. Every response in any test is
//! checked against that description.

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
