//! The form of a report's JSON.

/// The version of the form of a report's JSON: `docs/report.schema.json`. It goes up when a field goes or changes its meaning, not
/// when one is added.
pub const REPORT_SCHEMA_VERSION: u32 = 1;
