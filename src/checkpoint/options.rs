//! How an output is written.

/// How an output is written; by default it replaces nothing and is not flushed to the disk.
///
/// ```
/// use swiftprune_wgpu::checkpoint::OutputOptions;
///
/// let options = OutputOptions::new().overwrite(true).sync(true);
/// assert!(options.overwrite && options.sync);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputOptions {
    /// Whether what stands in its place is replaced: a file by a file, a directory that holds a checkpoint by a directory,
    /// never the input.
    pub overwrite: bool,
    /// Whether files and directories are flushed to the disk before the output gets its name, and the name after.
    pub sync: bool,
}

impl OutputOptions {
    /// Replaces nothing, flushes nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            overwrite: false,
            sync: false,
        }
    }

    /// With [`overwrite`](Self::overwrite) set.
    #[must_use]
    pub const fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// With [`sync`](Self::sync) set.
    #[must_use]
    pub const fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }
}
