//! A transport for tests: the real session layer, and in place of a protocol a loopback that
//! moves bytes and datagrams between the sockets of its applications. It can be killed at any
//! step and starts again from what it committed.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "not every test uses everything"
)]

mod fake;

use fake::{Durable, Fake};
use libsocket::Stack;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use session::{MemoryStore, Params};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Nobody answers here, ever.
pub const BLACK_HOLE: u16 = 1;

/// How the transport behaves, changeable while it runs.
#[derive(Debug, Default)]
pub struct Knobs {
    /// It dies at a step with this probability in a million.
    pub death: AtomicU32,
    /// Bytes moved for a socket in a turn at the most; 0 for no limit.
    pub chunk: AtomicU32,
    /// Write nonsense into the words (a bit in 8 turns).
    pub hostile: AtomicBool,
    /// Deaths so far.
    pub deaths: AtomicU64,
    /// Turns so far.
    pub turns: AtomicU64,
    stop: AtomicBool,
}

impl Knobs {
    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }
}

/// Two transports, tcpd's and udpd's, in threads.
pub struct World {
    pub stack: Stack,
    pub knobs: Arc<Knobs>,
    bells: Vec<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl World {
    /// With send and receive buffers of these sizes.
    pub fn with_buffers(tx: u32, rx: u32) -> Self {
        Self::with(|p| Params {
            tx_capacity: tx,
            rx_capacity: rx,
            base: tx.max(rx),
            windows: 0,
            ..p
        })
    }

    pub fn new() -> Self {
        Self::with_buffers(1 << 20, 1 << 20)
    }

    pub fn with(change: impl Fn(Params) -> Params) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let knobs = Arc::new(Knobs::default());
        let mut world = Self {
            stack: Stack::open(dir.path()),
            knobs,
            bells: Vec::new(),
            threads: Vec::new(),
            dir,
        };
        world.start("tcpd.sock", change(Params::tcp(abi::ServiceId(5))));
        world.start("udpd.sock", change(Params::udp(abi::ServiceId(6))));
        world
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn start(&mut self, name: &str, params: Params) {
        let listener = listen_at(self.dir.path().join(name));
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell: OwnedFd = EventFd::from_flags(flags).unwrap().into();
        self.bells.push(bell.try_clone().unwrap());
        let knobs = Arc::clone(&self.knobs);
        self.threads.push(std::thread::spawn(move || {
            let (mut store, mut durable) = (MemoryStore::default(), Durable::default());
            while !knobs.stop.load(Ordering::Relaxed) {
                let mut fake =
                    Fake::boot(&listener, &bell, params, &mut store, &mut durable, &knobs);
                if fake.run().is_err() {
                    knobs.deaths.fetch_add(1, Ordering::Relaxed);
                }
                drop(fake);
                store.crash();
            }
        }));
    }
}

fn listen_at(path: PathBuf) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(64).unwrap()).unwrap();
    fd
}

impl Drop for World {
    fn drop(&mut self) {
        self.knobs.stop.store(true, Ordering::Relaxed);
        for bell in &self.bells {
            let _ = nix::unistd::write(bell, &1u64.to_ne_bytes());
        }
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// Bytes that are different everywhere.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}
