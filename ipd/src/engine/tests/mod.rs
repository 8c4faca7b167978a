//! The engine's tests, a file a subject.

mod arp;
mod fragments;
mod hostile;
mod icmp;
mod input;
mod output;
mod restart;
pub(crate) mod world;
