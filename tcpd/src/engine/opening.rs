//! What concerns how connections begin and end under load: the switches.

/// Switches of opening and closing; Linux's defaults where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenConfig {
    /// Answer SYNs with a cookie when a listener's SYN queue is full (`tcp_syncookies` = 1).
    pub syn_cookies: bool,
}

impl Default for OpenConfig {
    fn default() -> Self {
        Self { syn_cookies: true }
    }
}
