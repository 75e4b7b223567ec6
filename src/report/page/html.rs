//! Pieces of HTML, and how text gets into them.

use crate::untrusted::escaped;

/// A text as HTML shows it, between tags and in quoted attributes: what could steer a page or turn the direction of the text is
/// escaped, too.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in escaped(text).to_string().chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            '"' => html += "&quot;",
            '\'' => html += "&#39;",
            c => html.push(c),
        }
    }
    html
}

/// A section: its title, the sentence that says what to see, and what there is to see.
pub(super) fn section(title: &str, see: &str, inner: &str) -> String {
    format!(
        "<section>\n<h2>{}</h2>\n<p class=\"see\">{}</p>\n{inner}</section>\n",
        escape(title),
        escape(see)
    )
}

/// A figure, with the name of its run where there are several.
pub(super) fn figure(name: Option<&str>, inner: &str) -> String {
    let caption = name.map_or_else(String::new, |name| {
        format!("<figcaption>{}</figcaption>", escape(name))
    });
    format!("<figure>{caption}{inner}</figure>\n")
}

/// Something that may be wider than the screen: it scrolls by itself, with the keyboard, too.
pub(super) fn scroll(label: &str, inner: &str) -> String {
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{}\">{inner}</div>\n",
        escape(label)
    )
}

/// A picture with the sentence that stands for it where it cannot be seen.
pub(super) fn picture(width: u32, height: u32, said: &str, inner: &str) -> String {
    let said = escape(said);
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{said}\" style=\"min-width:{}px\">{inner}</svg>\n",
        width * 3 / 4
    )
}

/// A legend: the class of each mark, and what it means.
pub(super) fn legend(marks: &[(&str, &str)]) -> String {
    let mark = |(class, meaning): &(&str, &str)| {
        format!(
            "<li><svg class=\"mark\" viewBox=\"0 0 24 12\" aria-hidden=\"true\"><path class=\"{class}\" d=\"{}\"/></svg>{}</li>",
            match *class {
                "pruned" | "kept" => "M12 6h0",
                class if class.starts_with("band") || class.starts_with("bar") => "M2 1h20v10h-20z",
                _ => "M1 6h22",
            },
            escape(meaning)
        )
    };
    let marks: String = marks.iter().map(mark).collect();
    format!("<ul class=\"legend\">{marks}</ul>\n")
}

/// A fraction in percent, without the sign: as many digits as say something.
pub(super) fn percent(fraction: f64) -> String {
    match 100.0 * fraction {
        value if value.abs() >= 9.95 || value == 0.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A number with three digits or so.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

/// Seconds for humans.
pub(super) fn seconds(value: f64) -> String {
    match value {
        value if value < 0.0995 => format!("{:.0} ms", 1000.0 * value),
        value if value < 99.5 => format!("{value:.1} s"),
        value if value < 5970.0 => format!("{:.0} min", value / 60.0),
        value => format!("{:.1} h", value / 3600.0),
    }
}

/// Bytes in decimal units.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let size = bytes as f64;
    let unit = units.into_iter().find(|(unit, _)| size >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(unit, name)| format!("{:.1} {name}", size / unit),
    )
}

/// A number with thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
