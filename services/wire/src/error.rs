//! Why bytes were refused.

use thiserror::Error;

/// What was wrong with a packet, or with the buffer it was to be written into.
///
/// Small and `Copy`, so that a drop counter can be indexed by it without formatting anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Error {
    /// The bytes end before the header does.
    #[error("truncated: the bytes end before the header does")]
    Truncated,
    /// The output buffer cannot hold what is to be written.
    #[error("the output buffer is too small")]
    BufferTooSmall,
    /// The version nibble is not this protocol's.
    #[error("wrong protocol version")]
    BadVersion,
    /// A length field contradicts itself or the bytes at hand.
    #[error("a length field contradicts the packet")]
    BadLength,
    /// A checksum does not verify.
    #[error("wrong checksum")]
    BadChecksum,
    /// A field has a value its protocol forbids.
    #[error("malformed: a field has a forbidden value")]
    Malformed,
    /// More extension headers than anyone needs (a bound against algorithmic attacks).
    #[error("too many extension headers")]
    TooManyHeaders,
    /// Well formed, but not something this function deals with.
    #[error("not supported here")]
    Unsupported,
}
