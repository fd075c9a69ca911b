;; Asks for 4 GiB of memory, for ever, whatever it is told.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (drop (memory.grow (i32.const 65535))) (br $again)) unreachable)
