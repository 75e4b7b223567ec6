//! Everything that is measured on one device, into one record.

use super::error::Error;
use super::options::BenchOptions;
use super::record::Record;
use super::{files, matrices, whole_run};
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
    match &options.dir {
        Some(dir) => whole_run::measure(device, options, dir, &mut record, progress)?,
        None => record
            .left_out
            .push("whole run, files and calibration: not asked for".to_owned()),
    }
    matrices::measure(device, options, &mut record, progress)?;
    if let Some(dir) = &options.dir {
        files::measure(device, options, dir, &mut record, progress)?;
    }
    Ok(record)
}
