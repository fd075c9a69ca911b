;; Writes more than its grant allows, in chunks.
;; expect: failed
;; says: bytes of writes
;; grants: station-write

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(import "flowstone:asset/files@0.1.0" "[method]directory.append" (func $append (param i32 i32 i32 i32 i32 i32)))
(memory (export "memory") 20)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $d i32)
  (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048))
  (local.set $d (i32.load (i32.const 2052)))
  (loop $again
    (call $append (local.get $d) (i32.const 8192) (i32.const 5) (i32.const 0) (i32.const 1000000) (i32.const 2048))
    (br_if $again (i32.eqz (call $refused))))
  (i32.const 1024))
(data (i32.const 4096) "station")
(data (i32.const 8192) "b.csv")
