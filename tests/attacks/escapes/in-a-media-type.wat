;; Says that its output is of a type that is the same.
;; expect: failed
;; says: a media type is like

(import "flowstone:asset/output@0.1.0" "set-media-type" (func $set_media_type (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $set_media_type (i32.const 4096) (i32.const 51) (i32.const 2048))
  (drop (call $refused))
  (i32.const 1024))
(data (i32.const 4096) "text/\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe")
