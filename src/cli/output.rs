//! How things look: tables, numbers, devices and untrusted text.

use std::io::Write as _;
use std::path::Path;

use swiftprune_wgpu::device::{DeviceInfo, DeviceKind};
use swiftprune_wgpu::untrusted::shown;

/// Rows as aligned columns, two spaces apart; the columns in `right` are aligned to the right.
pub(super) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            if right.contains(&column) {
                line += &padding;
                line += cell;
            } else {
                line += cell;
                line += &padding;
            }
            line += "  ";
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// The same within a terminal of `width` columns: where it is wider, columns are left out in the order of `dispensable`, and
/// a line says which. Nothing is left out where the width is not known.
pub(super) fn table_within(
    width: Option<usize>,
    rows: &[Vec<String>],
    right: &[usize],
    dispensable: &[usize],
) -> String {
    let mut left_out = 0;
    let mut text = table(rows, right);
    while left_out < dispensable.len() && width.is_some_and(|width| widest(&text) > width) {
        left_out += 1;
        text = table_without(&dispensable[..left_out], rows, right);
    }
    let mut gone = dispensable[..left_out].to_vec();
    gone.sort_unstable();
    let names = gone.iter().filter_map(|&column| rows.first()?.get(column));
    let names: Vec<&str> = names.map(String::as_str).collect();
    if !names.is_empty() {
        text += &format!("(too narrow for {})\n", names.join(", "));
    }
    text
}

/// Columns of the widest line.
fn widest(text: &str) -> usize {
    let widths = text.lines().map(|line| line.chars().count());
    widths.max().unwrap_or(0)
}

/// The table without some columns.
fn table_without(left_out: &[usize], rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let kept: Vec<usize> = (0..columns).filter(|i| !left_out.contains(i)).collect();
    let of_row = |row: &Vec<String>| -> Vec<String> {
        let cells = kept.iter().filter_map(|&column| row.get(column));
        cells.cloned().collect()
    };
    let fewer: Vec<Vec<String>> = rows.iter().map(of_row).collect();
    let right: Vec<usize> = (0..kept.len())
        .filter(|&place| right.contains(&kept[place]))
        .collect();
    table(&fewer, &right)
}

/// Writes a file that appears whole, in the place of one that is there.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // A temporary file is its owner's alone; this one is as any new file, less the umask.
        file.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = file.tempfile_in(dir.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// A number with thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in decimal units, as disks and `ls --si` count.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    for (size, unit) in units {
        if bytes as f64 >= size {
            return format!("{:.1} {unit}", bytes as f64 / size);
        }
    }
    format!("{bytes} B")
}

/// A fraction as percent.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// A device in a sentence.
pub(super) fn device(info: &DeviceInfo) -> String {
    match info.kind {
        DeviceKind::Cpu => "the CPU".to_owned(),
        _ => shown(&info.to_string()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(123_456_789), "123,456,789");
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bb".to_owned(), "22".to_owned()],
        ];
        assert_eq!(table(&rows, &[1]), "a    1\nbb  22\n");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_is_told() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["KIND", "WEIGHTS", "ZEROS"]),
            row(["up", "1,024", "512"]),
        ];
        let whole = table(&rows, &[1, 2]);
        assert_eq!(table_within(None, &rows, &[1, 2], &[1]), whole);
        assert_eq!(table_within(Some(20), &rows, &[1, 2], &[1]), whole);
        let narrow = "KIND  ZEROS\nup      512\n(too narrow for WEIGHTS)\n";
        assert_eq!(table_within(Some(19), &rows, &[1, 2], &[1]), narrow);
        assert_eq!(table_within(Some(1), &rows, &[1, 2], &[1]), narrow);
    }
}
