//! Declares a section of the config: each key once, with all that is known about it.

/// Makes a struct, its default and the list of its [`Key`](super::Key)s from lines
/// `/// meaning` and `name: type = default, class, type and range;`. `sections` are fields that are
/// structs themselves and bring their own keys.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident, $keys:ident, $prefix:literal {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $type:ty = $default:expr, $class:ident, $value:expr;
            )+
            $(sections {
                $($(#[doc = $section_doc:literal])+ $section:ident: $section_type:ty,)+
            })?
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $type,)+
            $($($(#[doc = $section_doc])+ pub $section: $section_type,)+)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($key: $default,)+
                    $($($section: <$section_type>::default(),)+)?
                }
            }
        }

        pub(super) const $keys: &[Key] = &[
            $(Key {
                name: concat!($prefix, stringify!($key)),
                class: Class::$class,
                value: $value,
                doc: concat!($($doc),+).trim_ascii(),
            },)+
        ];
    };
}

pub(super) use section;
