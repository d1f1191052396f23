//! Columns of text for people.

use std::fmt;

/// A column's heading and the side on which its cells line up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Figures.
    Right(&'static str),
}

/// Rows of cells, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row, which has one cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a row has one cell for each column");
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].chars().count());
        cells.chain([self.columns[column].heading().chars().count()]).max().unwrap_or(0)
    }
}

impl Column {
    fn heading(self) -> &'static str {
        let (Self::Left(heading) | Self::Right(heading)) = self;
        heading
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.width(column)).collect();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&self.columns).zip(&widths);
            let padded = padded.map(|((cell, column), &width)| match column {
                Column::Left(_) => format!("{cell:<width$}"),
                Column::Right(_) => format!("{cell:>width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        write!(f, "{}", line(self.columns.iter().map(|column| column.heading()).collect()))?;
        for row in &self.rows {
            write!(f, "\n{}", line(row.iter().map(String::as_str).collect()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_line_up_left_and_figures_right() {
        let mut table = Table::new([Column::Left("class"), Column::Right("images")]);
        table.row(["Ä".into(), "12".into()]);
        table.row(["ankle-boot".into(), "1,250".into()]);
        assert_eq!(
            table.to_string(),
            "class       images\n\
             Ä               12\n\
             ankle-boot   1,250"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_heading() {
        let table = Table::new([Column::Left("worker"), Column::Left("silent")]);
        assert_eq!(table.to_string(), "worker  silent");
    }

    #[test]
    #[should_panic(expected = "one cell for each column")]
    fn a_short_row_is_refused() {
        Table::new([Column::Left("a"), Column::Left("b")]).row(["x".into()]);
    }
}
