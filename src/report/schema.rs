//! The form of a report's JSON.

/// The version of the form of a report's JSON: `docs/report.schema.json`. It goes up when a field goes or changes its meaning, not
/// when one is added. 2: `rows_not_mended` became `rows_not_compensated`; those of version 1 are read, too.
pub const REPORT_SCHEMA_VERSION: u32 = 2;
