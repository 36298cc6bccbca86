//! Tables: columns as wide as what is in them, colour left out where it is not wanted.

use anstyle::Style;

/// Rows under headings.
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

/// A cell in a style.
pub(super) fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

impl<const N: usize> Table<N> {
    /// A table with only headings.
    pub(super) fn new(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned)],
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// All of it, with an end to each line; without rows nothing.
    pub(super) fn text(&self) -> String {
        if self.rows.len() == 1 {
            return String::new();
        }
        self.lines()
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn lines(&self) -> Vec<String> {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(visible(cell));
            }
        }
        let line = |row: &[String; N]| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - visible(cell) + 2));
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// How many characters of a cell are seen: escape sequences are not.
fn visible(cell: &str) -> usize {
    anstream::adapter::strip_str(cell)
        .to_string()
        .chars()
        .count()
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let mut table = Table::new(["A", "B"]);
        table.row(["long cell".to_owned(), "x".to_owned()]);
        let green = Style::new().fg_color(Some(AnsiColor::Green.into()));
        table.row([styled("ok", green), "y".to_owned()]);
        let plain: Vec<_> = table
            .lines()
            .iter()
            .map(|line| anstream::adapter::strip_str(line).to_string())
            .collect();
        assert_eq!(plain, ["A          B", "long cell  x", "ok         y"]);
    }
}
