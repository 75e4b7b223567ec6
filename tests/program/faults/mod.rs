//! What goes wrong with a model, a place or a run reaches the user: by exit code, by name, and never only in a report; and
//! nothing is lost or left behind. docs/testing.md lists the faults.

#[cfg(unix)]
mod bounds;
mod devices;
#[cfg(unix)]
mod inputs;
#[cfg(unix)]
mod kills;
mod models;
mod places;
#[cfg(unix)]
mod signals;
