;; Writes over a link that leads out of the directory.
;; expect: failed
;; says: denied
;; grants: station-write

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(import "flowstone:asset/files@0.1.0" "[method]directory.append" (func $append (param i32 i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048))
  (call $append (i32.load (i32.const 2052)) (i32.const 8192) (i32.const 8) (i32.const 0) (i32.const 1) (i32.const 2048))
  (drop (call $refused))
  (i32.const 1024))
(data (i32.const 4096) "station")
(data (i32.const 8192) "link.csv")
