//! The program as a user runs it: what it says, writes, refuses and survives. A module for each of its commands, and for the
//! ways in which a run can go wrong.

#![cfg_attr(
    not(unix),
    allow(dead_code, unused_imports, reason = "some faults are of Unix")
)]

mod bench;
mod bench_records;
mod cli;
mod compensation;
mod faults;
mod flags;
mod inspect;
mod large;
mod parts;
mod place;
mod report;
mod sequential;
mod sweep;
mod verify;
