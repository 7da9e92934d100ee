//! Where backups live: the objects of a place ([`backend`]), which backups they are ([`catalog`]), and which of them stay ([`retention`]).

pub mod backend;
pub mod catalog;
pub mod retention;
