//! `data:` URLs (RFC 2397) of pictures.

use axum::body::Bytes;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::serve::error::ApiError;

/// Reads the bytes of a `data:` URL; what its media type says is not believed.
///
/// # Errors
/// It is not base64.
pub fn read(url: &str, field: &str) -> Result<Bytes, ApiError> {
    let wrong = |message: String| ApiError::field(field, message).with_code("invalid_image_url");
    let Some((head, data)) = url.split_once(',') else {
        return Err(wrong("the `data:` URL has no comma before its data".to_owned()));
    };
    if !head.trim_end().to_ascii_lowercase().ends_with(";base64") {
        return Err(wrong("the `data:` URL of a picture must be base64: `data:image/jpeg;base64,…`".to_owned()));
    }
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&STANDARD, lenient);
    let decoded = match data.contains(['%', ' ', '\n', '\r', '-', '_']) {
        false => engine.decode(data),
        // Percent-encoded, wrapped or of the alphabet for URLs.
        true => engine.decode(plain(data)),
    };
    match decoded {
        Ok(file) if file.is_empty() => Err(wrong("the picture is empty".to_owned())),
        Ok(file) => Ok(file.into()),
        Err(error) => Err(wrong(format!("the picture is not base64: {error}"))),
    }
}

fn plain(data: &str) -> String {
    let mut text = String::with_capacity(data.len());
    let mut rest = data;
    while let Some(letter) = rest.chars().next() {
        let mut taken = letter.len_utf8();
        match letter {
            '%' => {
                let byte = rest.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                text.push(byte.map_or('%', char::from));
                taken = if byte.is_some() { 3 } else { 1 };
            }
            ' ' | '\n' | '\r' => {}
            '-' => text.push('+'),
            '_' => text.push('/'),
            other => text.push(other),
        }
        rest = &rest[taken..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let read = |url: &str| read(url, "f").map(|file| file.to_vec()).map_err(|error| error.message);
        assert_eq!(read("data:image/png;base64,+/8=").unwrap(), [0xfb, 0xff]);
        assert_eq!(read("DATA:image/png;charset=x;BASE64,+/8").unwrap(), [0xfb, 0xff]);
        assert_eq!(read("data:;base64,-_8%3D").unwrap(), [0xfb, 0xff]);
        assert_eq!(read("data:;base64,+/\n8=").unwrap(), [0xfb, 0xff]);
        assert!(read("data:image/png,abc").unwrap_err().contains("must be base64"));
        assert!(read("data:image/png;base64").unwrap_err().contains("no comma"));
        assert!(read("data:;base64,").unwrap_err().contains("empty"));
        assert!(read("data:;base64,%zz*").unwrap_err().contains("not base64"));
    }
}
