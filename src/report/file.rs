//! The report's file: opened before the work, and removed again if there is nothing to report.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::page::{self, Run};
use crate::untrusted;

/// A file that a report will be written to.
#[derive(Debug)]
pub(crate) struct ReportFile {
    path: PathBuf,
    file: Option<File>,
}

impl ReportFile {
    /// Opens a new file: a report replaces nothing.
    ///
    /// # Errors
    /// Also when there is something at `path`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Some(File::create_new(path)?),
            path: path.to_path_buf(),
        })
    }

    /// Writes the report: as a page if the file's name ends in `.html`, else as JSON.
    pub(crate) fn write(mut self, report: &impl Serialize) -> io::Result<()> {
        let is_page = self
            .path
            .extension()
            .is_some_and(|end| end.eq_ignore_ascii_case("html"));
        let text = if is_page {
            page::page(&[Run::of(report)?], &[])
        } else {
            untrusted::json(report)?
        };
        match &mut self.file {
            Some(file) => file.write_all(text.as_bytes())?,
            None => unreachable!("a report is written once"),
        }
        self.file = None;
        Ok(())
    }
}

impl Drop for ReportFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
