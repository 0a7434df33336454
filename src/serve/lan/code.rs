//! QR codes of addresses, for terminals and for the page.

use anyhow::{Context, Result};
use qrcode::render::{svg, unicode};
use qrcode::{EcLevel, QrCode};

fn code(text: &str) -> Result<QrCode> {
    QrCode::with_error_correction_level(text, EcLevel::M).context("the address is too long for a QR code")
}

/// A code of half blocks, for a terminal: light on dark, whatever the terminal's colours, needs both drawn.
///
/// # Errors
/// The text is too long.
pub fn terminal(text: &str) -> Result<String> {
    // Most terminals are dark, so light modules are drawn; scanners read the inverse as well.
    Ok(code(text)?
        .render::<unicode::Dense1x2>()
        .dark_color(unicode::Dense1x2::Light)
        .light_color(unicode::Dense1x2::Dark)
        .build())
}

/// A code as SVG.
///
/// # Errors
/// The text is too long.
pub fn svg(text: &str) -> Result<String> {
    let code = code(text)?;
    let image = code.render::<svg::Color<'_>>().min_dimensions(240, 240).build();
    // Within a page, it needs no declaration of its own.
    Ok(image.split_once("?>").map(|(_, rest)| rest.to_owned()).unwrap_or(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let url = "http://192.168.1.20:8080/pair?token=abcdefghjkmnpqrs";
        let text = terminal(url).unwrap();
        assert!(text.lines().count() > 14 && text.contains('█') && text.contains('▀'));
        let picture = svg(url).unwrap();
        assert!(picture.trim_start().starts_with("<svg") && !picture.contains("script"), "{picture}");
        assert!(svg(&"x".repeat(5000)).is_err());
    }
}
