//! Sockets of a Strata constellation, in the shape of `std::net`.
//!
//! ```text
//!   TcpStream  TcpListener  UdpSocket  PingSocket       std's shape over
//!        └──────────┴────┬─────┴───────────┘
//!                      Socket                           the core: one per descriptor, BSD calls
//!        ┌───────────┬───┴────┬───────────┬──────────┐
//!     connect     stream   datagram    accept     options
//!        └───────────┴───┬────┴───────────┴──────────┘
//!        ┌───────────────┴───────┐
//!     Session                  Shadow
//!     requests, memory, bell   the descriptor and its readiness
//! ```
//!
//! A socket is a real kernel descriptor (its *shadow fd*), so `epoll`, `poll`, `select`, tokio,
//! `dup`, `fork`, `SCM_RIGHTS` and close-on-exec work on it as on any other; `AsFd` gives it.
//! Its data never passes through the kernel: it lies in the session memory that this process
//! shares with the transport. How readiness and memory are kept together is told in the head of
//! `shadow`.
//!
//! The library starts no thread, installs no signal handler, and touches no global state but
//! the default [`Stack`]. It trusts the transport's words no more than the transport trusts its:
//! impossible positions are errors (`EPROTO`), never a panic.
//!
//! ```no_run
//! use std::io::{Read, Write};
//!
//! # fn main() -> std::io::Result<()> {
//! let mut stream = libsocket::TcpStream::connect("10.77.0.1:80")?;
//! stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
//! let mut page = Vec::new();
//! stream.read_to_end(&mut page)?;
//! # Ok(())
//! # }
//! ```
//!
//! Which constellation: [`Stack::default_stack`] reads `STRATA_NAME` (else `default`).

mod accept;
mod closing;
mod connect;
mod datagram;
mod error;
mod fdpass;
mod lend;
mod options;
mod paths;
mod ping;
mod recv;
mod send;
mod session;
mod shadow;
mod socket;
mod stack;
mod tcp_listener;
mod tcp_stream;
mod udp;
mod urgent;
mod wait;

pub use abi::session::{DatagramHeader, SockOpt, SockOptName, SocketKind};
pub use datagram::Received;
pub use error::{StackError, errno};
pub use lend::Lender;
pub use paths::{DEFAULT_NAME, check_name, run_dir};
pub use ping::{Echo, PingSocket};
pub use socket::Socket;
pub use stack::Stack;
pub use tcp_listener::{Incoming, TcpListener};
pub use tcp_stream::TcpStream;
pub use udp::UdpSocket;
