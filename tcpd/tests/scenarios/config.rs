//! The engine's parameters by name. What is not said is as plain as can be: no options but the
//! MSS, no large units, `NewReno`, so that sizes are round.

use crate::lang::duration;
use abi::config::EcnMode;
use tcpd::engine::Config;
use tcpd::engine::congestion::Algorithm;
use tcpd::engine::memory::MemoryConfig;

/// Parameters of a scenario beside the engine's.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) engine: Config,
    /// Bytes of each buffer of a socket.
    pub(crate) buffer: u32,
    /// What device a segment comes by.
    pub(crate) mtu: u16,
}

impl Default for Setup {
    fn default() -> Self {
        let engine = Config {
            capacity: 64,
            secret: [3; 16],
            timestamps: false,
            window_scaling: false,
            sack: false,
            max_gso: 0,
            ecn: EcnMode::Off,
            congestion: Algorithm::NewReno,
            memory: MemoryConfig::fixed(),
            ..Config::default()
        };
        Self {
            engine,
            buffer: 65_536,
            mtu: 1_500,
        }
    }
}

fn number<T: core::str::FromStr>(value: &str) -> Result<T, String> {
    value
        .replace('_', "")
        .parse()
        .map_err(|_| format!("`{value}` is no number that fits"))
}

fn switch(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{value}`: on or off")),
    }
}

impl Setup {
    /// Sets one parameter.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let c = &mut self.engine;
        match name {
            "buffer" => self.buffer = number(value)?,
            "mtu" => self.mtu = number(value)?,
            "capacity" => c.capacity = number(value)?,
            "timestamps" => c.timestamps = switch(value)?,
            "wscale" => c.window_scaling = switch(value)?,
            "sack" => c.sack = switch(value)?,
            "gso" => c.max_gso = number(value)?,
            "congestion" => {
                c.congestion =
                    Algorithm::by_name(value).ok_or_else(|| format!("no `{value}` here"))?;
            }
            "ecn" => {
                c.ecn = match value {
                    "off" => EcnMode::Off,
                    "passive" => EcnMode::Passive,
                    "on" => EcnMode::On,
                    _ => return Err(format!("`{value}`: off, passive or on")),
                }
            }
            "initial-window" => c.initial_window = number(value)?,
            "ephemeral" => {
                let (first, last) = value.split_once('-').ok_or("ephemeral=FIRST-LAST")?;
                c.ephemeral = (number(first)?, number(last)?);
            }
            "rto-min" => c.rto_min = duration(value)?,
            "rto-max" => c.rto_max = duration(value)?,
            "rto-initial" => c.rto_initial = duration(value)?,
            "delayed-ack" => c.delayed_ack = duration(value)?,
            "time-wait" => c.time_wait = duration(value)?,
            "fin-timeout" => c.fin_timeout = duration(value)?,
            "syn-retries" => c.syn_retries = number(value)?,
            "synack-retries" => c.synack_retries = number(value)?,
            "retries" => c.retries = number(value)?,
            "orphan-retries" => c.orphan_retries = number(value)?,
            "somaxconn" => c.somaxconn = number(value)?,
            "syn-backlog" => c.max_syn_backlog = number(value)?,
            "challenge-acks" => c.challenge_ack_limit = number(value)?,
            "syn-cookies" => c.open.syn_cookies = switch(value)?,
            "invalid-ratelimit" => c.open.invalid_ratelimit = duration(value)?,
            "max-orphans" => c.open.max_orphans = number(value)?,
            "rfc1337" => c.open.rfc1337 = switch(value)?,
            "fastopen-key" => c.open.fast_open_key = duration(value)?,
            "fastopen" => {
                let on = switch(value)?;
                c.open.fast_open_client = on;
                c.open.fast_open_server = on;
            }
            _ => return Err(format!("`{name}` is no parameter known to config.rs")),
        }
        Ok(())
    }
}
