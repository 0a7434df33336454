//! The pictures of a request: `data:` URLs, and, where the user allows it, files on the web.

mod addresses;
mod data_url;
mod fetch;

use axum::body::Bytes;
use dwindle_runtime::image::{self, Picture};

use super::draft::{Piece, Said};
use super::error::ApiError;
use super::request::messages::Unfetched;

pub use fetch::Fetcher;

/// The types that are read, as the page is told.
pub const FORMATS: [&str; 5] = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];

/// Where a picture comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The request itself.
    Data(Bytes),
    /// The web.
    Remote {
        /// The address.
        url: String,
        /// The field that names it.
        field: String,
    },
}

/// Reads the URL of a picture; `field` names it.
///
/// # Errors
/// It is no URL of a picture.
pub fn read_url(url: &str, field: &str) -> Result<Source, ApiError> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default();
    let refuse = |message: String| Err(ApiError::field(field, message).with_code("invalid_image_url"));
    match scheme.as_str() {
        "data" => {
            let file = data_url::read(url, field)?;
            check(&file, field)?;
            Ok(Source::Data(file))
        }
        "http" | "https" => Ok(Source::Remote { url: url.to_owned(), field: field.to_owned() }),
        "file" => refuse("`file:` URLs are refused; send the picture as a `data:` URL".to_owned()),
        _ => refuse("pictures are sent as URLs like `data:image/jpeg;base64,…`".to_owned()),
    }
}

/// Checks by the first bytes that a file is a picture that can be read.
///
/// # Errors
/// What it is instead.
pub fn check(file: &[u8], field: &str) -> Result<(), ApiError> {
    // A file of a known format that is cut behind its first bytes is broken, not unknown.
    match Picture::decode(&file[..file.len().min(64)]) {
        Err(error @ image::Error::Format { .. }) => {
            let message = format!("the picture cannot be used: {error}");
            Err(ApiError::field(field, message).with_code("invalid_image"))
        }
        _ => Ok(()),
    }
}

/// Gets the pictures of messages that are on the web, where that is allowed.
///
/// # Errors
/// It is not, or one cannot be had.
pub async fn complete(messages: Vec<Unfetched>, fetcher: Option<&Fetcher>) -> Result<Vec<Said>, ApiError> {
    let mut complete = Vec::with_capacity(messages.len());
    for Unfetched { mut said, pictures } in messages {
        for (place, source) in pictures {
            let file = match (source, fetcher) {
                (Source::Data(file), _) => file,
                (Source::Remote { url, field }, Some(fetcher)) => fetcher.fetch(url, field).await?,
                (Source::Remote { field, .. }, None) => {
                    let message = "addresses of pictures on the web are refused; send a `data:` URL, or start the server with \
                                   `--allow-image-urls`";
                    return Err(ApiError::field(field, message).with_code("image_url_refused"));
                }
            };
            said.content[place] = Piece::Picture(file);
        }
        complete.push(said);
    }
    Ok(complete)
}
