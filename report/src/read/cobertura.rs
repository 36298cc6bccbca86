//! Cobertura's XML: classes with the file that they are in, and its lines. A file that several classes
//! share, or a line that its method repeats, counts once.

use crate::coverage::{Count, CoverageReport, LineByLine};
use crate::parse::ParseError;
use crate::xml::{Element, Xml};

pub(crate) fn cobertura(text: &str) -> Result<CoverageReport, ParseError> {
    let mut xml = Xml::new(text);
    xml.root(&["coverage"])?;
    let mut reading = Reading {
        xml,
        files: LineByLine::default(),
    };
    reading.level()?;
    Ok(reading.files.finish())
}

struct Reading<'a> {
    xml: Xml<'a>,
    files: LineByLine,
}

impl Reading<'_> {
    fn level(&mut self) -> Result<(), ParseError> {
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "packages" | "package" | "classes" => self.level()?,
                // Clover's, whose first element has the same name.
                "project" => {
                    return Err(ParseError::Unexpected {
                        at: self.xml.place_of(&element),
                        expected: "<packages>",
                        found: "<project>".to_owned(),
                    });
                }
                "class" => {
                    let path = element.text_of("filename").into_owned();
                    self.files.file(&path);
                    self.class(&path)?;
                }
                _ => self.xml.skip()?,
            }
        }
        Ok(())
    }

    /// The lines of a class. Methods have lines of their own, which istanbul does not repeat below the
    /// class and does not count, so only those of the class are read where it has some.
    fn class(&mut self, path: &str) -> Result<(), ParseError> {
        let mut of_methods = LineByLine::default();
        let mut lines = 0;
        while let Some(element) = self.xml.child()? {
            match element.name() {
                "lines" => lines += read_lines(&mut self.xml, path, &mut self.files)?,
                "methods" => {
                    while let Some(_method) = self.xml.child()? {
                        while let Some(part) = self.xml.child()? {
                            if part.is("lines") {
                                read_lines(&mut self.xml, path, &mut of_methods)?;
                            } else {
                                self.xml.skip()?;
                            }
                        }
                    }
                }
                _ => self.xml.skip()?,
            }
        }
        if lines == 0 {
            self.files.absorb(of_methods);
        }
        Ok(())
    }
}

fn read_lines(xml: &mut Xml<'_>, path: &str, files: &mut LineByLine) -> Result<usize, ParseError> {
    let mut lines = 0;
    while let Some(element) = xml.child()? {
        if element.is("line")
            && let Some(number) = element.number::<u32>("number")
        {
            lines += 1;
            let is_covered = !matches!(&*element.text_of("hits"), "0" | "");
            files.line(path, number, is_covered);
            if let Some(branches) = conditions(&element) {
                files.branches(path, number, branches);
            }
        }
        xml.skip()?;
    }
    Ok(lines)
}

/// What `50% (1/2)` says.
fn conditions(line: &Element<'_>) -> Option<Count> {
    let text = line.attribute("condition-coverage")?;
    let (_, rest) = text.split_once('(')?;
    let (covered, rest) = rest.split_once('/')?;
    let (total, _) = rest.split_once(')')?;
    let covered = covered.trim().parse().ok()?;
    Some(Count::of(covered, total.trim().parse().ok()?))
}
