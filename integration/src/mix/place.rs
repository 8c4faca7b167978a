//! Where the two ends of every connection are, and how connections between them are made.

use super::ends::{End, Peer};
use crate::peer::Stream;
use anyhow::{Context, Result};
use libsocket::Stack;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where both ends are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) stack: Stack,
    pub(super) stack_address: Ipv4Addr,
    pub(super) peer: Peer,
    pub(super) patience: Duration,
}

impl Place {
    /// A connection between the peer and the stack.
    pub(super) fn connect(&self, stack_opens: bool) -> Result<(End, libsocket::TcpStream)> {
        let mut pairs = self.connect_by(stack_opens, 1)?;
        pairs.pop().context("no connection")
    }

    /// Many of them, half opened by either.
    pub(super) fn connect_many(&self, count: usize) -> Result<Vec<(End, libsocket::TcpStream)>> {
        let mut pairs = self.connect_by(true, count / 2)?;
        pairs.extend(self.connect_by(false, count - count / 2)?);
        Ok(pairs)
    }

    fn connect_by(
        &self,
        stack_opens: bool,
        count: usize,
    ) -> Result<Vec<(End, libsocket::TcpStream)>> {
        let mut pairs = Vec::with_capacity(count);
        if stack_opens {
            let door = self.peer.listen()?;
            let to = door.address()?;
            for _ in 0..count {
                let ours = self.stack.connect(to);
                let ours = ours.with_context(|| format!("the stack connects to {to}"))?;
                pairs.push((door.accept()?, ours));
            }
        } else {
            let listener = self.stack.listen((self.stack_address, 0))?;
            let to = listener.local_addr()?;
            for _ in 0..count {
                let theirs = self.peer.connect(to);
                let theirs = theirs.with_context(|| format!("the peer connects to {to}"))?;
                pairs.push((theirs, listener.accept().context("accepting")?.0));
            }
        }
        for (theirs, ours) in &pairs {
            theirs.patience(self.patience)?;
            ours.patience(self.patience)?;
        }
        Ok(pairs)
    }
}
