//! What may be at the other end besides an engine.

pub(crate) mod manners;
pub(crate) mod model;
pub(crate) mod smol;

pub(crate) use manners::Manners;
