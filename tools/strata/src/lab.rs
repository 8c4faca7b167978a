//! A constellation of one's own, for the demonstration, the benchmark and the tests: started in
//! the present network namespace, in a directory of its own, and taken down whatever happens.
//!
//! ```text
//!   this process (kernel sockets, libsocket)          the constellation
//!        10.N.0.1  kernel's end  <-- TAP or veth -->  10.N.0.2  the stack's
//! ```
//!
//! The supervisor holds the reading end of a pipe, its standard input, and stops everything when
//! the writing end closes: also when this process is killed.

mod role;
mod running;

pub use role::{AS_STRATA, become_strata_if_asked};
pub use running::stop_all;

use crate::admin::{Answer, DaemonState, DaemonStatus, Request, Status, call};
use crate::netns::{create_veth, no_offload, set_address, set_mtu, set_up, tap_available};
use crate::rundir::RunDir;
use anyhow::{Context, Result, bail};
use core::net::Ipv4Addr;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use running::{PREFIX, Running, is_alive, keep, lock};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// How to start a constellation.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// `tap` or `packet`; none: the best that this machine allows.
    pub kind: Option<LabDevice>,
    /// Lines for the `[[device]]` section (`impairment = { .. }`).
    pub device: String,
    /// Whether checksums and segmentation are left to the device and to the kernel.
    pub offload: bool,
    /// Further sections.
    pub extra: String,
    /// Largest packet in bytes.
    pub mtu: u16,
    /// Further environment variables of the supervisor and, by it, of the daemons.
    pub environment: Vec<(String, String)>,
    /// Leave the kernel's end without an address: what is behind it has the kernel's
    /// ([`LabDevice::Packet`] only).
    pub bare: bool,
}

/// The kind of device between the kernel and the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabDevice {
    /// A TAP device.
    Tap,
    /// A veth pair, the stack on a raw packet socket at one end.
    Packet,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            kind: None,
            device: String::new(),
            offload: true,
            extra: String::new(),
            mtu: 1500,
            environment: Vec::new(),
            bare: false,
        }
    }
}

/// A running constellation; dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    running: Arc<Running>,
    device: LabDevice,
    /// Name of the stack's interface.
    pub interface: String,
    /// Name of the kernel's interface.
    pub host_interface: String,
    /// The kernel's address.
    pub host: Ipv4Addr,
    /// The stack's address.
    pub stack: Ipv4Addr,
    environment: Vec<(String, String)>,
}

impl Lab {
    /// Starts one and waits until every layer is ready.
    ///
    /// # Errors
    /// When something is missing; the supervisor's own words are part of the text.
    pub fn start(config: &LabConfig) -> Result<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let dir = std::env::temp_dir().join(format!("{PREFIX}{pid}-{serial}"));
        let mut private = fs::DirBuilder::new();
        private.mode(0o700);
        private
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        let device = config.kind.unwrap_or_else(|| {
            if tap_available() {
                LabDevice::Tap
            } else {
                LabDevice::Packet
            }
        });
        let net = u8::try_from(77 + serial % 128).unwrap_or(77);
        let rundir = RunDir::under(dir.clone(), "lab")?;
        let running = Running::new(dir, rundir);
        let lab = Self {
            running,
            device,
            interface: format!("strata{serial}"),
            host_interface: match device {
                LabDevice::Tap => format!("strata{serial}"),
                LabDevice::Packet => format!("host{serial}"),
            },
            host: Ipv4Addr::new(10, net, 0, 1),
            stack: Ipv4Addr::new(10, net, 0, 2),
            environment: config.environment.clone(),
        };
        fs::write(lab.config_file(), lab.configure(config)?)?;
        lab.spawn(&[])?;
        lab.wait_ready(Duration::from_secs(20))?;
        Ok(lab)
    }

    /// Makes the kernel's side where that is ours to make, and answers the configuration.
    fn configure(&self, config: &LabConfig) -> Result<String> {
        let (kind, host_address) = match self.device {
            LabDevice::Tap => ("tap", format!("host-address = \"{}/24\"\n", self.host)),
            LabDevice::Packet => {
                create_veth(&self.host_interface, &self.interface)?;
                for end in [&self.host_interface, &self.interface] {
                    set_mtu(end, config.mtu)?;
                    if !config.offload {
                        no_offload(end)?;
                    }
                    set_up(end)?;
                }
                if !config.bare {
                    set_address(&self.host_interface, format!("{}/24", self.host).parse()?)?;
                }
                ("packet", String::new())
            }
        };
        let offload = if config.offload {
            ""
        } else {
            "offload = \"none\"\n"
        };
        Ok(format!(
            "[[device]]\nname = \"{}\"\nkind = \"{kind}\"\naddresses = [\"{}/24\"]\nmtu = {}\n\
             {host_address}{offload}{}\n\n[[route]]\nto = \"default\"\nvia = \"{}\"\n\n{}\n",
            self.interface, self.stack, config.mtu, config.device, self.host, config.extra
        ))
    }

    fn config_file(&self) -> PathBuf {
        self.running.dir.join("strata.toml")
    }

    /// `strata` with these arguments, for this constellation: to be run.
    ///
    /// # Errors
    /// When this program cannot be found.
    pub fn strata(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--name", "lab"])
            .args(arguments)
            .env(AS_STRATA, "1")
            .env("STRATA_RUN_DIR", &self.running.dir)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn spawn(&self, more: &[&str]) -> Result<()> {
        let dir = &self.running.dir;
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(dir.join("supervisor.log"))?;
        let child = self
            .strata(&["up", "--foreground", "--config"])?
            .arg(self.config_file())
            .args(more)
            .env(AS_STRATA, role::SUPERVISOR)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // An interrupt that is typed is ours; we then stop the supervisor.
            .process_group(0)
            .spawn()
            .context("cannot start the supervisor")?;
        *lock(&self.running.supervisor) = Some(child);
        Ok(())
    }

    fn wait_ready(&self, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        loop {
            let ended = match lock(&self.running.supervisor).as_mut() {
                Some(child) => child.try_wait()?,
                None => bail!("it was stopped while it started"),
            };
            if let Some(status) = ended {
                bail!("the supervisor ended ({status}):\n{}", self.log());
            }
            if let Ok(status) = self.status()
                && status
                    .daemons
                    .iter()
                    .all(|d| d.state == DaemonState::Running)
            {
                return Ok(());
            }
            if begin.elapsed() > patience {
                bail!("not ready after {patience:?}:\n{}", self.log());
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// What supervisor and daemons have said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.running.dir.join("supervisor.log")).unwrap_or_default()
    }

    /// Asks the supervisor.
    ///
    /// # Errors
    /// When it does not answer or refuses.
    pub fn ask(&self, request: &Request) -> Result<Answer> {
        Ok(call(&self.running.rundir, request)?)
    }

    /// How everything is.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub fn status(&self) -> Result<Status> {
        match self.ask(&Request::Status)? {
            Answer::Status(status) => Ok(status),
            other => bail!("the supervisor answered {other:?} to a question for its status"),
        }
    }

    /// One layer; `netdevd` is the first device's.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn layer(&self, name: &str) -> Result<DaemonStatus> {
        self.status()?
            .daemons
            .into_iter()
            .find(|d| d.name == name || d.name.split('@').next() == Some(name))
            .with_context(|| format!("there is no layer {name}"))
    }

    /// Value of one of a layer's counters; 0 when it has none of that name.
    ///
    /// # Errors
    /// When there is no such layer.
    pub fn counter(&self, layer: &str, counter: &str) -> Result<u64> {
        let counters = self.layer(layer)?.counters;
        Ok(counters
            .into_iter()
            .find(|(name, _)| name == counter)
            .map_or(0, |(_, value)| value))
    }

    /// Sends a signal to a layer's process and answers its process id.
    ///
    /// # Errors
    /// When it has no process.
    pub fn signal(&self, layer: &str, signal: Signal) -> Result<u32> {
        let pid = self
            .layer(layer)?
            .pid
            .with_context(|| format!("{layer} has no process"))?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)
            .with_context(|| format!("cannot signal {layer} ({pid})"))?;
        Ok(pid)
    }

    /// Kills the supervisor; [`Lab::adopt`] starts another.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_supervisor(&self) -> Result<()> {
        let mut supervisor = lock(&self.running.supervisor);
        let child = supervisor.as_mut().context("no supervisor")?;
        child.kill().context("cannot kill the supervisor")?;
        child.wait()?;
        Ok(())
    }

    /// Starts a supervisor that adopts what the last one left, and waits until all is ready.
    ///
    /// # Errors
    /// When it does not; its own words are part of the text.
    pub fn adopt(&self) -> Result<()> {
        self.spawn(&[])?;
        self.wait_ready(Duration::from_secs(20))
    }

    /// Puts a supervisor in the place of the one that runs or hangs, as `strata up --replace`
    /// does, and waits until all is ready.
    ///
    /// # Errors
    /// When it does not; its own words are part of the text.
    pub fn replace_supervisor(&self) -> Result<()> {
        let before = lock(&self.running.supervisor).take();
        let mut before = before.context("no supervisor")?;
        if let Err(error) = self.spawn(&["--replace"]) {
            *lock(&self.running.supervisor) = Some(before);
            return Err(error);
        }
        // Waiting would close it first, and so ask it to stop everything.
        let lifeline = before.stdin.take();
        before.wait()?;
        drop(lifeline);
        self.wait_ready(Duration::from_secs(20))
    }

    /// Waits until a layer runs under another process id than `old`; answers how long that took.
    ///
    /// # Errors
    /// When it does not within ten seconds.
    pub fn wait_replaced(&self, layer: &str, old: u32) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let now = self.layer(layer)?;
            if now.pid.is_some_and(|pid| pid != old) && now.state == DaemonState::Running {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > Duration::from_secs(10) {
                bail!(
                    "{layer} has not come back ({:?}):\n{}",
                    now.state,
                    self.log()
                );
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Directory of the constellation's sockets, for `libsocket::Stack::open`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.running.rundir.path()
    }

    /// The kind of device in use.
    #[must_use]
    pub fn device(&self) -> LabDevice {
        self.device
    }

    /// Takes it down and looks whether anything of it is left.
    ///
    /// # Errors
    /// What is left.
    pub fn stop(self) -> Result<()> {
        let daemons: Vec<u32> = self
            .status()?
            .daemons
            .iter()
            .filter_map(|d| d.pid)
            .collect();
        self.running.stop();
        let left: Vec<_> = daemons.iter().filter(|pid| is_alive(**pid)).collect();
        if !left.is_empty() {
            bail!("these processes are left behind: {left:?}");
        }
        if !keep() && self.running.dir.exists() {
            bail!("{} is left behind", self.running.dir.display());
        }
        Ok(())
    }
}
