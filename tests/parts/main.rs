//! A run that is cut into parts, or stopped and resumed, writes what a single run writes; and parts that do not fit together are
//! refused by name.

#[path = "../faults/common.rs"]
#[allow(dead_code, reason = "the tests of faults use the rest")]
mod common;
mod identity;
mod merged;
mod place;
mod resumed;
