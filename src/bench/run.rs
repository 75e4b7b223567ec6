//! Everything that is measured on one device, into one record.

use super::error::Error;
use super::options::BenchOptions;
use super::record::Record;
use super::{files, matrices};
use crate::device::Device;

/// Measures one device; `progress` is told what comes next.
///
/// # Errors
/// Every variant of [`Error`].
pub fn run(
    device: &Device,
    options: &BenchOptions,
    progress: &dyn Fn(&str),
) -> Result<Record, Error> {
    let mut record = Record::new(device.info().clone());
    matrices::measure(device, options, &mut record, progress)?;
    match &options.dir {
        Some(dir) => files::measure(device, options, dir, &mut record, progress)?,
        None => record
            .left_out
            .push("files and calibration: not asked for".to_owned()),
    }
    Ok(record)
}
