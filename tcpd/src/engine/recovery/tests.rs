//! Recovery on single records.
