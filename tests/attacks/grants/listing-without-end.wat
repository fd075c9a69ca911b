;; Lists a directory for ever, with all the entries that a number can ask for.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms
;; grants: station

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(import "flowstone:asset/files@0.1.0" "[method]directory.entries" (func $entries (param i32 i32 i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $d i32)
  (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048))
  (local.set $d (i32.load (i32.const 2052)))
  (loop $again
    (global.set $heap (i32.const 65536))
    (call $entries (local.get $d) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 2048))
    (br $again))
  unreachable)
(data (i32.const 4096) "station")
