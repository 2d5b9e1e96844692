//! What answers look like.
//!
//! Owns stdout, with colours, tables, relative times and sizes. Names go to a terminal without control
//! characters, since a name could otherwise command the terminal; elsewhere they are exact.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Stdout, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table};

use crate::timespec::from_ns;

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Human,
    /// JSON lines.
    Json,
}

/// Nobody reads stdout any more.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
pub(super) struct OutputClosed;

/// Stdout.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) format: Format,
    terminal: bool,
    colors: bool,
    out: BufWriter<Stdout>,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Output {
    pub(super) fn new(format: Format, terminal: bool, colors: bool) -> Self {
        Self { format, terminal, colors, out: BufWriter::with_capacity(64 * 1024, io::stdout()) }
    }

    /// Prints bytes and a line feed.
    pub(super) fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let written = self.out.write_all(line).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(closed)
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes).map_err(closed)
    }

    /// Hands over what was printed so far.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().map_err(closed)
    }

    /// A name as it is to be printed.
    pub(super) fn name<'n>(&self, name: &'n [u8]) -> Cow<'n, [u8]> {
        if self.terminal { Cow::Owned(escape(name).into_bytes()) } else { Cow::Borrowed(name) }
    }

    /// Text that stands out, where colours are wanted.
    pub(super) fn styled(&self, text: &str, style: Style) -> String {
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Good => 32,
            Style::Bad => 31,
        };
        if self.colors { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.into() }
    }

    /// Prints a table whose columns are as wide as they must be, under a bold header.
    pub(super) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) -> anyhow::Result<()> {
        for (index, line) in layout(columns, rows).lines().enumerate() {
            let line = line.trim_end();
            let line = if index == 0 { self.styled(line, Style::Bold) } else { line.into() };
            self.line(line.as_bytes())?;
        }
        Ok(())
    }
}

fn closed(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        OutputClosed.into()
    } else {
        anyhow::Error::new(error).context("cannot write to stdout")
    }
}

/// A column of a table: its head, and where its cells stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    Left(&'static str),
    Right(&'static str),
}

fn layout(columns: &[Column], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|column| match column {
            Column::Left(head) | Column::Right(head) => *head,
        }));
    // Control characters would break the columns even where they are harmless.
    for row in rows {
        table.add_row(row.iter().map(|cell| escape(cell.as_bytes())));
    }
    for (kind, column) in columns.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 2));
        if let Column::Right(_) = kind {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// A name without anything that a terminal would obey or that would reorder what stands beside it.
pub(super) fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || reorders {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// How long ago something was; a date where that says more.
pub(super) fn ago(time: &str, now_ns: i64) -> String {
    let Ok(time) = time.parse::<jiff::Timestamp>() else {
        return time.into();
    };
    let seconds = from_ns(now_ns).as_second() - time.as_second();
    match seconds {
        i64::MIN..-5 => date(time),
        -5..5 => "now".into(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        86_400..2_592_000 => format!("{} d ago", seconds / 86_400),
        2_592_000.. => date(time),
    }
}

fn date(time: jiff::Timestamp) -> String {
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A length of time.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        86_400.. => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A size in the unit that fits.
pub(super) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// The first digits of a digest.
pub(super) fn short(sha256: Option<crate::types::ContentHash>) -> String {
    sha256.map_or_else(|| "pending".into(), |hash| hash.to_string()[..12].into())
}

/// Who did something, as people know them.
pub(super) fn who(writer: Option<&crate::query::records::WriterRecord>) -> String {
    let Some(writer) = writer else {
        return "-".into();
    };
    let user = writer.user.clone().unwrap_or_else(|| writer.uid.to_string());
    if writer.comm.is_empty() { user } else { format!("{user} ({})", writer.comm) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[test]
    fn names_cannot_command_the_terminal() {
        assert_eq!(
            escape(b"a\x1b[31m\n\xff\xc3\xa4\xe2\x80\xaeb"),
            "a\\u{1b}[31m\\n\\xffä\\u{202e}b"
        );
    }

    #[rstest]
    #[case(-60, "2026-03-10 ")]
    #[case(0, "now")]
    #[case(59, "59 s ago")]
    #[case(185, "3 min ago")]
    #[case(7200, "2 h ago")]
    #[case(200_000, "2 d ago")]
    #[case(86_400 * 40, "2026-01-2")]
    fn times_are_told_as_people_do(#[case] seconds: i64, #[case] expected: &str) {
        let now: jiff::Timestamp = "2026-03-10T11:00:00Z".parse().unwrap();
        let now_ns = i64::try_from(now.as_nanosecond()).unwrap();
        let time = crate::timespec::rfc3339(now_ns - seconds * 1_000_000_000);
        let told = ago(&time, now_ns);
        assert!(told.starts_with(expected), "{told}");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["1", "a"], ["20", "b\n"]].map(|row| row.map(String::from).to_vec());
        let text = layout(&[Column::Right("N"), Column::Left("NAME")], &rows);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, [" N  NAME", " 1  a", "20  b\\n"]);
    }

    #[test]
    fn sizes_and_durations_have_their_units() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(3725), "1 h 2 min");
    }

    proptest! {
        #[test]
        fn no_name_has_controls_left(name: Vec<u8>) {
            prop_assert!(!escape(&name).chars().any(char::is_control));
        }
    }
}
