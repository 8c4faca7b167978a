//! Completing a partial checksum, for a device without checksum offload (and for frames that
//! turn round inside the stack and reach somebody who verifies).

use crate::checksum::{Checksum, nonzero};
use crate::{Error, Result};

/// Completes the checksum of a frame whose virtio header says `NEEDS_CSUM`: sums from
/// `csum_start` to the end, the partial sum in the field included, and writes the complement
/// `csum_offset` behind `csum_start`.
///
/// # Errors
/// [`Error::BadLength`] if the field is not inside the frame.
pub fn complete_checksum(frame: &mut [u8], csum_start: u16, csum_offset: u16) -> Result<()> {
    complete_checksum_parts(frame, &[], csum_start, csum_offset)
}

/// As [`complete_checksum`], for a frame whose end lies in pieces elsewhere. The field must be in
/// `linear`.
///
/// # Errors
/// As [`complete_checksum`].
pub fn complete_checksum_parts(
    linear: &mut [u8],
    rest: &[&[u8]],
    csum_start: u16,
    csum_offset: u16,
) -> Result<()> {
    let summed = linear
        .get_mut(usize::from(csum_start)..)
        .ok_or(Error::BadLength)?;
    let mut sum = Checksum::new();
    sum.add(summed);
    for piece in rest {
        sum.add(piece);
    }
    // The field may be UDP's, where 0 means "none"; in one's complement 0xffff is 0 as well, so
    // this is right for every protocol (and what the kernel does).
    let checksum = nonzero(sum.finish());
    let field = summed
        .get_mut(usize::from(csum_offset)..)
        .and_then(<[u8]>::first_chunk_mut::<2>)
        .ok_or(Error::BadLength)?;
    *field = checksum.to_be_bytes();
    Ok(())
}
