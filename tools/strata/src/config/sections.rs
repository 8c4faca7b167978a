//! The sections of `strata.toml` beside devices and routes: each a few bounded values.

use super::file::{self, PinFile};
use super::resolve::Problems;
use super::units::{HumanDuration, HumanSize, MemoryShare};
use super::{DEFAULT_NICE, Pin, Sizes};
use crate::policy::RestartPolicy;
use abi::config::{TCP_BUFFER_BASE, TCP_BUFFER_MOST, TcpConfig, TcpMemory, UdpConfig};
use core::ops::RangeInclusive;
use core::time::Duration;
use toml::Spanned;

/// Congestion control that tcpd has.
const CONGESTION: [&str; 3] = ["cubic", "newreno", "bbr"];

/// A duration within bounds, or the default with the problem noted.
fn bounded(
    written: Option<&Spanned<HumanDuration>>,
    bounds: RangeInclusive<Duration>,
    default: Duration,
    what: &str,
    problems: &mut Problems,
) -> Duration {
    let Some(written) = written else {
        return default;
    };
    let value = written.get_ref().0;
    if bounds.contains(&value) {
        return value;
    }
    problems.error(
        written.span(),
        format!("{what} of {value:?} is out of range"),
        format!(
            "use {:?} to {:?}; the default is {default:?}",
            bounds.start(),
            bounds.end()
        ),
    );
    default
}

/// `[restart]`.
pub(super) fn restart(written: &file::Restart, problems: &mut Problems) -> RestartPolicy {
    let default = RestartPolicy::default();
    let ms = Duration::from_millis;
    let s = Duration::from_secs;
    let policy = RestartPolicy {
        hang: bounded(
            written.hang.as_ref(),
            ms(50)..=s(600),
            default.hang,
            "`hang`",
            problems,
        ),
        start: bounded(
            written.start.as_ref(),
            ms(100)..=s(600),
            default.start,
            "`start`",
            problems,
        ),
        backoff: bounded(
            written.backoff.as_ref(),
            ms(1)..=s(600),
            default.backoff,
            "`backoff`",
            problems,
        ),
        backoff_max: bounded(
            written.backoff_max.as_ref(),
            ms(1)..=s(3600),
            default.backoff_max,
            "`backoff-max`",
            problems,
        ),
        stable: bounded(
            written.stable.as_ref(),
            Duration::ZERO..=s(3600),
            default.stable,
            "`stable`",
            problems,
        ),
        at_once: written.at_once.unwrap_or(default.at_once),
        give_up: written.give_up.unwrap_or(default.give_up),
        quarantine: written.quarantine.unwrap_or(default.quarantine),
        lost_buffers: bounded(
            written.lost_buffers.as_ref(),
            ms(100)..=s(3600),
            default.lost_buffers,
            "`lost-buffers`",
            problems,
        ),
        spare: written.spare.unwrap_or(default.spare),
    };
    if policy.backoff > policy.backoff_max
        && let Some(span) = written
            .backoff_max
            .as_ref()
            .or(written.backoff.as_ref())
            .map(Spanned::span)
    {
        problems.error(
            span,
            format!(
                "`backoff` ({:?}) is longer than `backoff-max` ({:?})",
                policy.backoff, policy.backoff_max
            ),
            "the delay grows from the one to the other",
        );
    }
    policy
}

fn count(
    written: Option<&Spanned<u32>>,
    bounds: RangeInclusive<u32>,
    default: u32,
    what: &str,
    problems: &mut Problems,
) -> u32 {
    let Some(written) = written else {
        return default;
    };
    let value = *written.get_ref();
    if bounds.contains(&value) {
        return value;
    }
    problems.error(
        written.span(),
        format!("{what} of {value} is out of range"),
        format!(
            "use {} to {}; the default is {default}",
            bounds.start(),
            bounds.end()
        ),
    );
    default
}

/// What a buffer of TCP holds at the start and at most, in bytes.
fn buffer(
    written: Option<&Spanned<[HumanSize; 2]>>,
    default: [u32; 2],
    what: &str,
    problems: &mut Problems,
) -> [u32; 2] {
    let Some(written) = written else {
        return default;
    };
    let [start, most] = written.get_ref().map(|size| size.0);
    let fits = (4_096..=TCP_BUFFER_BASE.into()).contains(&start)
        && (start..=TCP_BUFFER_MOST.into()).contains(&most);
    match (u32::try_from(start), u32::try_from(most)) {
        (Ok(start), Ok(most)) if fits => [start, most],
        _ => {
            problems.error(
                written.span(),
                format!("{what} from {start} to {most} bytes is out of range"),
                "write [start, most], with 4KiB to 128KiB at the start, and from there to 8MiB at \
                 most"
                    .to_owned(),
            );
            default
        }
    }
}

/// Where pressure begins.
fn memory(
    written: Option<&Spanned<MemoryShare>>,
    default: TcpMemory,
    problems: &mut Problems,
) -> TcpMemory {
    let Some(written) = written else {
        return default;
    };
    match *written.get_ref() {
        MemoryShare::Bytes(bytes) if (1 << 20..1 << 50).contains(&bytes) => TcpMemory::Bytes(bytes),
        MemoryShare::Share(share) if (0.0001..=0.5).contains(&share) =>
        {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "1 to 5,000"
            )]
            TcpMemory::Share((share * 10_000.0).round() as u32)
        }
        _ => {
            problems.error(
                written.span(),
                "`memory` is out of range".to_owned(),
                "use 1MiB or more, or 0.01% to 50% of the machine's; the default is 6.25%"
                    .to_owned(),
            );
            default
        }
    }
}

/// `[tcp]`.
pub(super) fn tcp(written: &file::Tcp, problems: &mut Problems) -> TcpConfig {
    let default = TcpConfig::default();
    let congestion = written.congestion.as_ref().map_or_else(
        || default.congestion.clone(),
        |congestion| {
            let name = congestion.get_ref();
            if !CONGESTION.contains(&name.as_str()) {
                problems.error(
                    congestion.span(),
                    format!("no congestion control is called `{name}`"),
                    format!("there is: {}", CONGESTION.join(", ")),
                );
            }
            name.clone()
        },
    );
    let time_wait = bounded(
        written.time_wait.as_ref(),
        Duration::from_millis(1)..=Duration::from_secs(240),
        Duration::from_millis(u64::from(default.time_wait_ms)),
        "`time-wait`",
        problems,
    );
    let fast_open_key = bounded(
        written.fast_open_key.as_ref(),
        Duration::from_millis(100)..=Duration::from_secs(30 * 86_400),
        Duration::from_millis(u64::from(default.fast_open_key_ms)),
        "`fast-open-key`",
        problems,
    );
    TcpConfig {
        max_sockets: count(
            written.max_sockets.as_ref(),
            16..=65_536,
            default.max_sockets,
            "`max-sockets`",
            problems,
        ),
        congestion,
        time_wait_ms: u32::try_from(time_wait.as_millis()).unwrap_or(default.time_wait_ms),
        ecn: written.ecn.unwrap_or(default.ecn),
        mtu_probing: written.mtu_probing.unwrap_or(default.mtu_probing),
        fast_open: written.fast_open.unwrap_or(default.fast_open),
        fast_open_key_ms: u32::try_from(fast_open_key.as_millis())
            .unwrap_or(default.fast_open_key_ms),
        syn_cookies: written.syn_cookies.unwrap_or(default.syn_cookies),
        user_timeout_option: written
            .user_timeout_option
            .unwrap_or(default.user_timeout_option),
        receive_buffer: buffer(
            written.receive_buffer.as_ref(),
            default.receive_buffer,
            "`receive-buffer`",
            problems,
        ),
        send_buffer: buffer(
            written.send_buffer.as_ref(),
            default.send_buffer,
            "`send-buffer`",
            problems,
        ),
        memory: memory(written.memory.as_ref(), default.memory, problems),
    }
}

/// `[udp]`.
pub(super) fn udp(written: &file::Udp, problems: &mut Problems) -> UdpConfig {
    let default = UdpConfig::default();
    UdpConfig {
        max_sockets: count(
            written.max_sockets.as_ref(),
            16..=65_536,
            default.max_sockets,
            "`max-sockets`",
            problems,
        ),
    }
}

/// `[cpu]`.
pub(super) fn pin(written: &file::Cpu, problems: &mut Problems) -> Pin {
    let Some(pin) = &written.pin else {
        return Pin::default();
    };
    match pin.get_ref() {
        PinFile::Core(core) if *core < 1024 => Pin::Core(*core),
        PinFile::Word(word) if word == "auto" => Pin::Auto,
        PinFile::Word(word) if word == "off" => Pin::Off,
        other => {
            let (PinFile::Core(_) | PinFile::Word(_)) = other;
            problems.error(
                pin.span(),
                "`pin` is neither a word nor a core that is known",
                "write \"auto\" (all daemons on the last core), \"off\", or a core's number",
            );
            Pin::default()
        }
    }
}

/// `[cpu]` `nice`.
pub(super) fn nice(written: &file::Cpu, problems: &mut Problems) -> i32 {
    let Some(nice) = &written.nice else {
        return DEFAULT_NICE;
    };
    let value = *nice.get_ref();
    if !(-20..=19).contains(&value) {
        problems.error(
            nice.span(),
            format!("a `nice` of {value} is out of range"),
            format!("use -20 (before all others) to 19; the default is {DEFAULT_NICE}"),
        );
    }
    value
}

/// `[sizes]`.
pub(super) fn sizes(written: &file::Sizes, problems: &mut Problems) -> Sizes {
    let mut slots = |written: Option<&Spanned<u32>>, bounds: RangeInclusive<u32>, what: &str| {
        let written = written?;
        let value = *written.get_ref();
        if !bounds.contains(&value) {
            problems.error(
                written.span(),
                format!("{what} of {value} buffers is out of range"),
                format!("use {} to {}", bounds.start(), bounds.end()),
            );
        }
        Some(value)
    };
    Sizes {
        receive_small: slots(
            written.receive_small.as_ref(),
            64..=65_536,
            "`receive-small`",
        ),
        receive_large: slots(written.receive_large.as_ref(), 8..=4096, "`receive-large`"),
        transmit_small: slots(
            written.transmit_small.as_ref(),
            64..=65_536,
            "`transmit-small`",
        ),
        transmit_large: slots(
            written.transmit_large.as_ref(),
            8..=4096,
            "`transmit-large`",
        ),
    }
}

/// Owner and group by default: raw sockets are among what the stack hands out.
const ACCESS_MODE: u32 = 0o660;

/// `[access]`.
pub(super) fn access(written: &file::Access, problems: &mut Problems) -> u32 {
    let Some(mode) = &written.mode else {
        return ACCESS_MODE;
    };
    match u32::from_str_radix(mode.get_ref(), 8) {
        Ok(bits) if bits & !0o777 == 0 => bits,
        _ => {
            problems.error(
                mode.span(),
                format!("`{}` is not a file mode", mode.get_ref()),
                "write three octal digits, such as \"660\" or \"666\"",
            );
            ACCESS_MODE
        }
    }
}
